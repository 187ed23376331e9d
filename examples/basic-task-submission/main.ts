// Submits a task, follows it to its end and prints its report; see README.md.
import { setTimeout as sleep } from "node:timers/promises";

const server = process.env.CODERCLAW_URL ?? "http://127.0.0.1:7433";
const token = process.env.CODERCLAW_TOKEN;

interface Task {
  id: string;
  status: string;
  output?: string;
  error?: string;
}

interface TaskEvent {
  seq: number;
  status: string;
  progress?: number;
}

async function call(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const response = await fetch(new URL(path, server), { ...init, headers });
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response;
}

async function get<T>(path: string): Promise<T> {
  return (await call(path)).json() as Promise<T>;
}

/** Yields what happens to a task, each event once, until nothing more can come. */
async function* streamTaskUpdates(id: string): AsyncGenerator<TaskEvent> {
  for (let seq = 0; ; ) {
    try {
      const response = await call(`/v1/tasks/${id}/stream?after=${seq}`);
      if (response.status === 204) return; // the task has ended, and all of it was seen
      for await (const event of eventsOf(response)) {
        seq = event.seq;
        yield event;
      }
    } catch (problem) {
      if (!(problem instanceof TypeError)) throw problem;
      await sleep(2000); // the connection broke: go on where it did
    }
  }
}

/** Reads Server-Sent Events, whose data is one line of JSON here. */
async function* eventsOf(response: Response): AsyncGenerator<TaskEvent> {
  let unfinished = "";
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (unfinished + chunk).split("\n");
    unfinished = lines.pop()!;
    for (const line of lines) {
      if (line.startsWith("data: ")) yield JSON.parse(line.slice("data: ".length)) as TaskEvent;
    }
  }
}

const status = await get<{ mode: string; version: string; activeTasks: number; totalTasks: number }>("/v1/status");
console.log(
  `Runtime: mode ${status.mode}, version ${status.version}, ${status.activeTasks} active of ${status.totalTasks} tasks`,
);

const submitted = await call("/v1/tasks", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    description: "Analyze project architecture",
    input: "Review the current codebase structure",
    agentId: "architecture-advisor",
  }),
});
const { id } = (await submitted.json()) as Task;
console.log(`Task submitted: ${id}`);

let progress = 0;
for await (const update of streamTaskUpdates(id)) {
  progress = update.progress ?? progress;
  console.log(`Status: ${update.status}, Progress: ${progress}%`);
}

const task = await get<Task>(`/v1/tasks/${id}`);
console.log(`Current status: ${task.status}`);

const agents = await get<{ items: { id: string }[] }>("/v1/agents");
console.log(`Available agents: ${agents.items.map((agent) => agent.id).join(", ")}`);

const skills = await get<{ items: { id: string }[] }>("/v1/skills");
console.log(`Available skills: ${skills.items.map((skill) => skill.id).join(", ")}`);

console.log();
if (task.status !== "completed") throw new Error(`the task has ${task.status}: ${task.error}`);
console.log(task.output);
