# The service, the workers and all other commands, in one image. Mount the project's folder at /project.
FROM python:3.12-slim AS build
COPY pyproject.toml README.md CHANGELOG.md LICENSE /source/
COPY rules_engine /source/rules_engine
RUN python -m venv /opt/segments && /opt/segments/bin/pip install --no-cache-dir '/source[duckdb]'

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home segments
COPY --from=build /opt/segments /opt/segments
ENV PATH=/opt/segments/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /project
USER 10001
EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez')"]
ENTRYPOINT ["segments"]
CMD ["serve", "--host", "0.0.0.0", "--json-logs"]
