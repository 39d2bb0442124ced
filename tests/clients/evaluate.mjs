// Evaluates flags with OpenFeature's own SDK and provider for JavaScript. Lines of JSON come in and go out.
import { createInterface } from 'node:readline';
import { OpenFeature } from '@openfeature/server-sdk';
import { OFREPProvider } from '@openfeature/ofrep-provider';

const [baseUrl, key] = process.argv.slice(2);
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl, headers: [['Authorization', `Bearer ${key}`]] }));
const client = OpenFeature.getClient();
for await (const line of createInterface({ input: process.stdin })) {
  const { flag, otherwise, context } = JSON.parse(line);
  console.log(JSON.stringify(await client.getBooleanDetails(flag, otherwise, context)));
}
await OpenFeature.close();
