// Measures how many jobs that do nothing graphile-worker finishes a second.
//
// A process of its own has so many clients add jobs, one a transaction, which
// pause while many wait. This one works them, 24 at once as graphile-worker's own
// performance test does.
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Logger, run, runMigrations } from "graphile-worker";
import pg from "pg";

const backlog = 50; // jobs that may wait for each client that adds them
const { values: flags } = parseArgs({
  options: {
    clients: { type: "string", default: "64" },
    "warm-up": { type: "string", default: "1" },
    duration: { type: "string", default: "10" },
    add: { type: "boolean", default: false },
  },
});
const clients = Number(flags.clients);
const connectionString = process.env.DATABASE_URL;
const now = () => performance.timeOrigin + performance.now();

if (flags.add) await addJobs();
else await measure();

// addJobs adds jobs until its parent says stop; it is told how many are finished.
async function addJobs() {
  let added = 0;
  let finished = 0;
  let stopped = false;
  process.on("message", (message) => {
    if (message === "stop") stopped = true;
    else finished = message;
  });
  const pool = new pg.Pool({ connectionString, max: clients });
  await Promise.all(
    Array.from({ length: clients }, async () => {
      while (!stopped) {
        if (added - finished > backlog * clients) {
          await new Promise((resolve) => setTimeout(resolve, 1));
          continue;
        }
        added++;
        await pool.query("SELECT graphile_worker.add_job('noop', json_build_object('added', $1::float8))", [now()]);
      }
    }),
  );
  await pool.end();
  process.disconnect();
}

async function measure() {
  const logger = new Logger(() => (level, message) => {
    if (level === "error") console.error(message);
  });
  await runMigrations({ connectionString, logger });
  const pool = new pg.Pool({ connectionString, max: 1 });
  await pool.query("TRUNCATE graphile_worker._private_jobs"); // of the round before
  await pool.end();

  const runner = await run({
    connectionString,
    logger,
    concurrency: 24,
    maxPoolSize: 25,
    noHandleSignals: true,
    crontab: "",
    taskList: { noop: () => {} },
  });
  const from = now() + Number(flags["warm-up"]) * 1000;
  const until = from + Number(flags.duration) * 1000;
  const took = [];
  let finished = 0;
  runner.events.on("job:complete", ({ job, error }) => {
    if (error) throw error;
    finished++;
    const at = now();
    if (at >= from && at < until) took.push(at - job.payload.added);
  });

  const adder = fork(fileURLToPath(import.meta.url), ["--add", "--clients", flags.clients]);
  const gone = new Promise((resolve) => adder.once("exit", resolve));
  const tell = setInterval(() => adder.connected && adder.send(finished), 10);
  const status = await Promise.race([gone, new Promise((resolve) => setTimeout(() => resolve("over"), until - now()))]);
  clearInterval(tell);
  if (status !== "over") throw new Error(`the process that adds jobs ended with status ${status}`);
  adder.send("stop");
  await gone;
  await runner.stop();

  if (took.length === 0) throw new Error("no job was finished within the time");
  took.sort((a, b) => a - b);
  const at = (p) => took[Math.ceil(p * took.length) - 1];
  const figures = { throughputPerSecond: took.length / Number(flags.duration), p50Ms: at(0.5), p90Ms: at(0.9), p99Ms: at(0.99), p999Ms: at(0.999) };
  console.log(JSON.stringify(figures));
}
