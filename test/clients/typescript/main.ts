// Talks to a server through the types that openapi-typescript makes from
// openapi.yaml, and fails where the two do not fit.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.gen.js";

type TaskEvent = components["schemas"]["Event"];

const client = createClient<paths>({ baseUrl: process.argv[2]! });

async function lifecycle(): Promise<void> {
  const request = {
    params: { header: { "Idempotency-Key": "generated-typescript-client" } },
    body: {
      description: "Implement user authentication",
      input: "Add JWT-based auth to the API",
      agentId: "code-creator",
      dispatch: "manual" as const,
      labels: { client: "typescript" },
      metadata: { path: "." },
    },
  };
  const submitted = await client.POST("/v1/tasks", request);
  assert.equal(submitted.response.status, 201);
  assert.equal(submitted.data?.status, "pending");
  const { id } = submitted.data;
  assert.equal(submitted.response.headers.get("Location"), `/v1/tasks/${id}`);
  assert.equal((await client.POST("/v1/tasks", request)).data?.id, id);

  const params = { path: { id } };
  for (const body of [
    { status: "planning" },
    { status: "running", progress: 50, message: "half of it", data: { files: 3 } },
    { status: "completed", output: "Authentication implemented" },
  ] as const) {
    const updated = await client.PATCH("/v1/tasks/{id}", { params, body });
    assert.equal(updated.data?.status, body.status, JSON.stringify(updated.error));
  }
  const { data: task } = await client.GET("/v1/tasks/{id}", { params });
  assert.equal(task?.output, "Authentication implemented");
  assert.ok(task.completedAt);

  const query = { label: ["client=typescript"], status: ["completed"] };
  const { data: listed } = await client.GET("/v1/tasks", { params: { query } });
  assert.deepEqual(listed?.items.map((item) => item.id), [id]);

  const { data: history } = await client.GET("/v1/tasks/{id}/events", { params });
  assert.equal(history?.items[0]?.seq, 1);
  assert.equal(history.items.at(-1)?.status, "completed");
}

async function problems(): Promise<void> {
  const invalid = await client.POST("/v1/tasks", { body: { description: "", input: "" } });
  assert.equal(invalid.response.status, 422);
  assert.equal(invalid.error?.type, "/problems/invalid");
  assert.ok(invalid.error.errors?.some((field) => field.location === "body.description"));

  const id = "0190b8a1-0000-7000-8000-000000000000";
  const missing = await client.GET("/v1/tasks/{id}", { params: { path: { id } } });
  assert.equal(missing.error?.status, 404);
}

async function registry(): Promise<void> {
  const { data: agents } = await client.GET("/v1/agents");
  assert.ok(agents?.items.some((agent) => agent.id === "architecture-advisor" && agent.available));
  const { data: skills } = await client.GET("/v1/skills");
  assert.ok(skills?.items.length);
}

async function stream(): Promise<void> {
  const submitted = await client.POST("/v1/tasks", {
    body: {
      description: "Analyze project architecture",
      input: "Review the current codebase structure",
      agentId: "architecture-advisor",
    },
  });
  assert.ok(submitted.data, JSON.stringify(submitted.error));
  const { data: body } = await client.GET("/v1/tasks/{id}/stream", {
    params: { path: { id: submitted.data.id }, query: { after: "0" } },
    parseAs: "text", // the stream ends with the task
  });
  const events = body!
    .split("\n")
    .filter((line) => line.startsWith("data: "))
    .map((line) => JSON.parse(line.slice("data: ".length)) as TaskEvent);
  assert.deepEqual(events.map((event) => event.seq), events.map((_, i) => i + 1));
  assert.equal(events.at(-1)?.status, "completed");
}

await lifecycle();
await problems();
await registry();
await stream();
