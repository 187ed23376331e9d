// Asks what a session may do before it does it, and reads what the audit log
// says of that; see README.md.

const server = process.env.CODERCLAW_URL ?? "http://127.0.0.1:7433";

interface OpenedSession {
  accessToken: string;
  session: { userId: string; roles: string[] };
}

interface Decision {
  allowed: boolean;
  reason: string;
}

interface AuditList {
  items: { action: string; result: string; reason: string }[];
}

let accessToken = "";

async function call<T>(method: string, path: string, body?: object): Promise<T> {
  const headers = new Headers();
  if (accessToken) headers.set("Authorization", `Bearer ${accessToken}`);
  if (body) headers.set("Content-Type", "application/json");
  const response = await fetch(new URL(path, server), { method, headers, body: body && JSON.stringify(body) });
  const text = await response.text();
  const answer = (text ? JSON.parse(text) : {}) as T & { title: string; detail?: string };
  if (!response.ok) throw new Error(answer.detail ?? answer.title);
  return answer;
}

const opened = await call<OpenedSession>("POST", "/v1/sessions", {
  login: process.env.CLAW_USER,
  password: process.env.CLAW_PASSWORD,
  roles: ["developer"],
});
accessToken = opened.accessToken;
console.log(`Session of ${opened.session.userId} with the roles [${opened.session.roles.join(" ")}]`);

for (const permission of ["task:submit", "config:write"]) {
  const decision = await call<Decision>("POST", "/v1/permissions/check", { permission });
  console.log(`${permission}: ${decision.allowed ? "granted" : "denied"}: ${decision.reason}`);
}

const task = await call<{ id: string }>("POST", "/v1/tasks", {
  description: "Implement user authentication",
  input: "Add JWT-based auth to the API",
  dispatch: "manual",
});
console.log(`Submitted ${task.id}`);

for (const entry of (await call<AuditList>("GET", `/v1/audit?resourceId=${task.id}`)).items) {
  console.log(`Audited: ${entry.action} ${entry.result}, ${entry.reason}`);
}

await call("DELETE", "/v1/sessions/current");
const goesOn = await call("GET", "/v1/me").then(
  () => true,
  () => false,
);
if (goesOn) throw new Error("the session goes on");
console.log("The session has ended");
