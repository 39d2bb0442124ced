# Two images of one base. `client` answers and takes events: the service, in a tenth of the size. The last one, which is
# what `docker build .` makes, has all commands: workers, apply, batch. Mount the project's folder at /project.
FROM python:3.12-slim AS source
COPY pyproject.toml README.md CHANGELOG.md LICENSE /source/
COPY packaging/client /source/packaging/client
COPY rules_engine /source/rules_engine
RUN python -m venv /opt/segments

FROM source AS build-client
RUN /opt/segments/bin/pip install --no-cache-dir '/source/packaging/client[fast]'

FROM source AS build-whole
RUN /opt/segments/bin/pip install --no-cache-dir '/source[duckdb]'

FROM python:3.12-slim AS base
RUN useradd --uid 10001 --no-create-home segments
ENV PATH=/opt/segments/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /project
USER 10001
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez')"]
ENTRYPOINT ["segments"]
CMD ["serve", "--host", "0.0.0.0", "--json-logs"]

FROM base AS client
COPY --from=build-client /opt/segments /opt/segments

FROM base AS whole
COPY --from=build-whole /opt/segments /opt/segments
