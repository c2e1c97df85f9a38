// The demo: an appliance and a sandbox hospital of our own, on ports the system gives.

import { spawn } from "node:child_process";
import { once } from "node:events";

export class Demo {
  static async start(program, more = []) {
    const child = spawn(program, ["demo", "--port", "0", "--json", ...more], { stdio: ["ignore", "pipe", "inherit"] });
    const gone = once(child, "exit").then(([code]) => {
      throw new Error(`the demo ended with ${code} before it was ready`);
    });
    const facts = await Promise.race([announcement(child.stdout), gone]);
    gone.catch(() => {});
    return new Demo(child, facts);
  }

  constructor(child, facts) {
    this.child = child;
    // However this program ends, the demo does not outlive it.
    process.once("exit", () => child.kill());
    this.base = facts.base_url;
    this.key = facts.api_key;
    this.firstLink = facts.connect_url;
    this.control = facts.sandbox.control_url;
    this.hospital = facts.sandbox.fhir_base_url;
    this.charts = facts.sandbox.chart_url;
    this.patient = facts.sandbox.users[0].patient;
    this.user = facts.sandbox.users[0];
    this.origins = new Set([new URL(this.base).origin, new URL(this.control).origin]);
    this.patients = 0;
  }

  /** A session of a patient nobody has used before. `more` is put into the request. */
  async session(more = {}) {
    this.patients += 1;
    const body = { patient_id: `patient-${this.patients}`, return_url: `${this.base}/?from=app`, ...more };
    const answer = await fetch(`${this.base}/patient-sessions`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`no session: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  /** The address at which an EHR opens the app in a chart. */
  async openInChart() {
    const wanted = { client_id: "4d0c5e1a-7b2f-4c7e-9a43-d3300c1a0b01", clinician: "clinician-1" };
    const answer = await fetch(`${this.control}/launch`, { method: "POST", body: JSON.stringify(wanted) });
    if (!answer.ok) throw new Error(`no launch: ${await answer.text()}`);
    return (await answer.json()).url;
  }

  /** What the app of an EHR launch may know. */
  async launchContext(handle) {
    const headers = { authorization: `Bearer ${this.key}` };
    const answer = await fetch(`${this.base}/launch-contexts/${handle}`, { headers });
    if (!answer.ok) throw new Error(`no launch context: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  async faults(switches) {
    const answer = await fetch(`${this.control}/faults`, { method: "POST", body: JSON.stringify(switches) });
    if (!answer.ok) throw new Error(`fault not set: ${await answer.text()}`);
  }

  async noFaults() {
    await fetch(`${this.control}/faults`, { method: "DELETE" });
  }

  /** How many codes the hospital has exchanged. */
  async exchanges() {
    const counters = await (await fetch(`${this.control}/counters`)).json();
    return Object.entries(counters)
      .filter(([name]) => name.startsWith("token.authorization_code."))
      .reduce((sum, [, count]) => sum + count, 0);
  }

  async stop() {
    if (this.child.exitCode !== null) return;
    const gone = once(this.child, "exit");
    this.child.kill("SIGTERM");
    await gone;
  }
}

/** Reads until one JSON document is complete. */
async function announcement(stream) {
  let text = "";
  for await (const piece of stream.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
    text += piece;
    try {
      return JSON.parse(text);
    } catch {
      // Not all of it has arrived.
    }
  }
  throw new Error("the demo announced nothing");
}
