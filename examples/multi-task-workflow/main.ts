// Has a feature made by several agents, one after the other; see README.md.

const server = process.env.CODERCLAW_URL ?? "http://127.0.0.1:7433";
const token = process.env.CODERCLAW_TOKEN;

interface Task {
  id: string;
  description: string;
  agentId: string;
  parentTaskId?: string;
  status: string;
  error?: string;
}

async function request(method: string, path: string, body?: object): Promise<Response> {
  const headers = new Headers();
  if (token) headers.set("Authorization", `Bearer ${token}`);
  if (body) headers.set("Content-Type", "application/json");
  const response = await fetch(new URL(path, server), { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response;
}

async function call<T>(method: string, path: string, body?: object): Promise<T> {
  return (await request(method, path, body)).json() as Promise<T>;
}

/** Waits until the task has ended: then its stream does, too. */
async function finished(id: string): Promise<Task> {
  await (await request("GET", `/v1/tasks/${id}/stream`)).text();
  return call<Task>("GET", `/v1/tasks/${id}`);
}

const feature = await call<Task>("POST", "/v1/tasks", {
  description: "Feature development",
  input: "Build new dashboard feature",
  agentId: "architecture-advisor",
  dispatch: "manual",
});
console.log(`${feature.description}: ${feature.id}`);

const update = (changes: object): Promise<Task> => call("PATCH", `/v1/tasks/${feature.id}`, changes);

try {
  const parts: Task[] = [];
  for (const part of [
    { description: "Design API", input: "Design RESTful API for dashboard", agentId: "architecture-advisor" },
    { description: "Implement code", input: "Implement dashboard backend", agentId: "code-creator" },
    { description: "Write tests", input: "Create test suite for dashboard", agentId: "test-generator" },
  ]) {
    const dependsOn = parts.slice(-1).map((before) => before.id);
    parts.push(await call<Task>("POST", "/v1/tasks", { ...part, parentTaskId: feature.id, dependsOn }));
  }
  await update({ status: "planning" });
  await update({ status: "waiting", waitingReason: "dependency" });
  for (const { id } of parts) {
    const part = await finished(id);
    console.log(`  ${part.description}: ${part.status} by ${part.agentId}`);
    if (part.status !== "completed") throw new Error(`${part.description}: ${part.error}`);
  }
  await update({ status: "running" });
  await update({ status: "completed", progress: 100, output: "All parts are there" });
} catch (problem) {
  await update({ error: String(problem) });
  throw problem;
}

console.log();
const tree = await call<{ items: Task[] }>("GET", `/v1/tasks/${feature.id}/tree`);
for (const task of tree.items) {
  console.log(`${task.parentTaskId ? "  " : ""}${task.description}: ${task.status}`);
}
