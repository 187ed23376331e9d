// Drives tasks through their life by hand; see README.md.

const server = process.env.CODERCLAW_URL ?? "http://127.0.0.1:7433";
const token = process.env.CODERCLAW_TOKEN;

type Status = "pending" | "planning" | "running" | "waiting" | "completed" | "failed" | "cancelled";

interface Task {
  id: string;
  description: string;
  status: Status;
  waitingReason?: string;
  progress: number;
  output?: string;
  error?: string;
}

interface TaskEvent {
  seq: number;
  type: string;
  status: Status;
  message?: string;
}

interface Changes extends Partial<Pick<Task, "status" | "waitingReason" | "progress" | "output" | "error">> {
  message?: string;
}

/** What the server answers when it will not: application/problem+json. */
class Refusal extends Error {}

async function call<T>(method: string, path: string, body?: object): Promise<T> {
  const headers = new Headers();
  if (token) headers.set("Authorization", `Bearer ${token}`);
  if (body) headers.set("Content-Type", "application/json");
  const response = await fetch(new URL(path, server), { method, headers, body: body && JSON.stringify(body) });
  const answer = (await response.json()) as T & { title: string; detail?: string };
  if (!response.ok) throw new Refusal(answer.detail ?? answer.title);
  return answer;
}

async function submit(description: string, agentId: string, parentTaskId?: string): Promise<string> {
  const input = "Build a dashboard for the team";
  const task = { description, input, agentId, parentTaskId, dispatch: "manual" };
  return (await call<Task>("POST", "/v1/tasks", task)).id;
}

async function update(id: string, changes: Changes): Promise<void> {
  show(await call<Task>("PATCH", `/v1/tasks/${id}`, changes));
}

function show(task: Task): void {
  const reason = task.waitingReason ? ` (${task.waitingReason})` : "";
  console.log(`   Status: ${task.status}${reason}, Progress: ${task.progress}%`);
  if (task.error) console.log(`   Error: ${task.error}`);
  if (task.output) console.log(`   Output: ${task.output}`);
}

const feature = await submit("Feature development", "architecture-advisor");
console.log(`Feature development: ${feature}`);

console.log("\n1. Design API: progress until it is done");
const design = await submit("Design API", "architecture-advisor", feature);
await update(design, { status: "planning" });
await update(design, { status: "running" });
for (const progress of [25, 50, 75, 100]) {
  await update(design, { progress });
}
await update(design, { status: "completed", output: "Six routes, one document" });

console.log("\n2. Implement code: waits for an answer");
const implement = await submit("Implement code", "code-creator", feature);
await update(implement, { status: "planning" });
await update(implement, { status: "running", progress: 30 });
await update(implement, { status: "waiting", waitingReason: "input", message: "Which chart library?" });
await update(implement, { status: "running", message: "The one we have" });
await update(implement, { status: "completed", progress: 100, output: "Dashboard implemented" });

console.log("\n3. Write tests: fails");
const tests = await submit("Write tests", "test-generator", feature);
await update(tests, { status: "planning" });
await update(tests, { status: "running", progress: 20 });
await update(tests, { error: "The test framework is not configured" });

console.log("\n4. Write documentation: a step that is not allowed");
const documentation = await submit("Write documentation", "documentation-agent", feature);
const outcome = await call<Task>("PATCH", `/v1/tasks/${documentation}`, { status: "completed" }).catch(
  (reason: unknown) => reason,
);
if (!(outcome instanceof Refusal)) throw new Error("the server let a pending task complete", { cause: outcome });
console.log(`   Refused: ${outcome.message}`);

console.log("\n5. Feature development: cancelled, with what is open below it");
show(await call<Task>("POST", `/v1/tasks/${feature}/cancel`));

console.log("\n6. What became of the parts, newest first");
const parts = await call<{ items: Task[] }>("GET", `/v1/tasks?parentTaskId=${feature}`);
for (const part of parts.items) {
  console.log(`   ${part.description}: ${part.status}`);
}

console.log('\n7. The history of "Implement code"');
const events = await call<{ items: TaskEvent[] }>("GET", `/v1/tasks/${implement}/events`);
for (const event of events.items) {
  console.log(`   ${event.seq} ${event.type}: ${event.status}${event.message ? `, ${event.message}` : ""}`);
}
