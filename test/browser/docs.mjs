// Opens the docs page of the server in argv[2] with the browser in argv[3] and
// prints what it found there as JSON.
import { chromium } from "playwright-core";

const [server, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox", // CI runs as root
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const found = { operations: [], requests: [], complaints: [], backgrounds: {}, tried: null };
try {
  for (const colorScheme of ["light", "dark"]) {
    const page = await browser.newPage({ colorScheme });
    page.on("request", (request) => found.requests.push(request.url()));
    page.on("console", (message) => message.type() === "error" && found.complaints.push(message.text()));
    page.on("pageerror", (error) => found.complaints.push(error.message));
    await page.goto(`${server}/docs`);
    const status = page.locator("#operations-System-getStatus");
    await status.waitFor();
    found.operations = await page
      .locator(".opblock")
      .evaluateAll((blocks) => blocks.map((block) => block.id.replace(/^operations-\w+-/, "")));
    found.backgrounds[colorScheme] = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    await status.locator(".opblock-summary-control").click();
    await status.locator(".execute").click();
    const answer = status.locator(".live-responses-table .response-col_status").last();
    await answer.waitFor();
    found.tried = (await answer.innerText()).trim();
    await page.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(found));
