// One patient's browser: what a person does on the pages, and what must be true of every page that is seen.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const JARGON = /\b(oauth|tokens?|scopes?|fhir|endpoints?|authori[sz]ation|smart|jwt|jwks|pkce|null|undefined)\b/i;
const STACK = /panicked|\.rs:\d|at line \d|stack/i;
const PATIENCE = 20_000; // ms; a machine may be busy
const drawn = new Set();

export class Visit {
  static async open(browser, demo, { size, script = true, pictures }) {
    const context = await browser.newContext({
      viewport: size,
      javaScriptEnabled: script,
      colorScheme: "light",
      // A colour half-way through its transition has no contrast to measure.
      reducedMotion: "reduce",
    });
    context.setDefaultTimeout(PATIENCE);
    const visit = new Visit();
    Object.assign(visit, { context, demo, size, script, pictures, problems: [], callbacks: [], accepted: [] });
    visit.page = await context.newPage();
    visit.watch();
    return visit;
  }

  close() {
    return this.context.close();
  }

  problem(text) {
    this.problems.push(text);
  }

  check(fact, text) {
    if (!fact) this.problem(text);
  }

  /** A page that is refused with this status, or a console message with this text, is what the next step wants. */
  accept(status) {
    this.accepted.push(typeof status === "number" ? `status of ${status}` : status);
  }

  watch() {
    this.context.on("request", (request) => {
      const url = new URL(request.url());
      if (!this.demo.origins.has(url.origin) && !["data:", "blob:"].includes(url.protocol)) {
        this.problem(`a request went to ${url.origin}`);
      }
      if (url.pathname === "/api/auth/smart/callback") this.callbacks.push(request.url());
    });
    this.context.on("weberror", (error) => this.problem(`script error: ${error.error().message}`));
    // Violations of the content security policy are console errors too.
    this.context.on("console", (message) => {
      if (!["error", "warning"].includes(message.type())) return;
      if (this.accepted.some((text) => message.text().includes(text))) return;
      this.problem(`console ${message.type()}: ${message.text()} (${message.location().url})`);
    });
  }

  // What a person does.

  async go(url) {
    await this.page.goto(url);
  }

  heading(text) {
    return this.page.getByRole("heading", { level: 1, name: text });
  }

  async arrive(text) {
    await this.heading(text).waitFor();
  }

  async press(name) {
    await this.page.getByRole("button", { name, exact: true }).click();
  }

  async follow(name) {
    await this.page.getByRole("link", { name }).click();
  }

  /** From the first page to the page before the hospital's. */
  async choose() {
    await this.page.getByRole("searchbox").or(this.page.getByRole("combobox")).waitFor();
    await this.page.locator("a.card", { hasText: "Sandbox Hospital" }).click();
    await this.arrive("You are going to Sandbox Hospital");
  }

  async leave() {
    await this.press("Continue to Sandbox Hospital");
  }

  async signIn() {
    await this.page.locator("#username").fill(this.demo.user.username);
    await this.page.locator("#password").fill(this.demo.user.password);
    await this.press("Sign in");
    await this.arrive("Share your record");
  }

  /** From the first page until the patient has agreed, without the boxes in `unticked`. */
  async agree(unticked = []) {
    await this.choose();
    await this.leave();
    await this.signIn();
    for (const type of unticked) await this.page.locator(`input[name=type][value=${type}]`).uncheck();
    await this.press("Allow");
  }

  /** As `agree`, but the browser does not come back. Returns the address it was sent to. */
  async agreeAndStay() {
    await this.choose();
    await this.leave();
    await this.signIn();
    let back;
    await this.page.route("**/consent", async (route) => {
      const answer = await route.fetch({ maxRedirects: 0 });
      back = answer.headers().location;
      await route.fulfill({ status: 204 });
    });
    const answered = this.page.waitForResponse(/\/consent$/);
    await this.press("Allow");
    await answered;
    return back;
  }

  /** Until the first reading of the records is over. */
  async records() {
    const finished = this.page.locator("[data-region][data-finished]");
    if (this.script) return finished.waitFor();
    const until = Date.now() + PATIENCE;
    while ((await finished.count()) === 0) {
      if (Date.now() > until) throw new Error("the records did not arrive");
      await this.follow("Refresh");
      await this.page.waitForLoadState();
    }
  }

  text() {
    return this.page.locator("body").innerText();
  }

  async says(...texts) {
    const text = await this.text();
    for (const wanted of texts) this.check(text.includes(wanted), `“${wanted}” is not on ${this.page.url()}`);
  }

  // What must be true of every page.

  /** `name` is the picture's; `plain` is false for pages that are not written for patients. */
  async see(name, { plain = true, dark = false } = {}) {
    const { page, size } = this;
    const about = `${name} at ${size.width}`;
    const facts = await page.evaluate(() => ({
      lang: document.documentElement.lang,
      headings: document.querySelectorAll("h1").length,
      width: document.documentElement.scrollWidth,
    }));
    this.check(facts.lang === "en", `${about}: lang is “${facts.lang}”`);
    this.check(facts.headings === 1, `${about}: ${facts.headings} first headings`);
    this.check(facts.width <= size.width, `${about}: ${facts.width} pixels wide`);
    this.check((await page.title()).trim() !== "", `${about}: no title`);
    const text = await this.text();
    const found = text.match(JARGON);
    if (plain) this.check(!found, `${about}: says “${found?.[0]}”`);
    this.check(!STACK.test(text), `${about}: shows the machine's inside`);
    await this.axe(about, "light");
    await this.draw(name);
    await page.emulateMedia({ colorScheme: "dark" });
    await this.axe(about, "dark");
    if (dark) await this.draw(`${name}-dark`);
    await page.emulateMedia({ colorScheme: "light" });
  }

  async axe(about, scheme) {
    if (!this.script) return; // axe is a script, and the pages are the same without one
    await this.page.evaluate(AXE);
    const result = await this.page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, impact, nodes } of result.violations) {
      if (!["serious", "critical"].includes(impact)) continue;
      this.problem(`${about}, ${scheme}: ${impact} ${id} at ${nodes.map((node) => node.target).join(" | ")}`);
    }
  }

  async draw(name) {
    if (!this.pictures) return;
    const file = path.join(this.pictures, `${name}-${this.size.width}${this.script ? "" : "-plain"}.png`);
    if (drawn.has(file)) return;
    drawn.add(file);
    await this.page.screenshot({ path: file, fullPage: true });
  }
}
