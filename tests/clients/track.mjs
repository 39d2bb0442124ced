// Reports through Segment's own SDK for node: `node track.mjs URL KEY`, one call in JSON on each line of the standard input.
import { createInterface } from "node:readline";
import { Analytics } from "@segment/analytics-node";

const [host, writeKey] = process.argv.slice(2);
const analytics = new Analytics({ writeKey, host, flushInterval: 50 });
analytics.on("error", (error) => {
  console.error(error);
  process.exitCode = 1;
});
for await (const line of createInterface({ input: process.stdin })) {
  const { call, ...message } = JSON.parse(line);
  analytics[call](message);
}
await analytics.flush({ close: true });
