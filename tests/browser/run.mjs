// Runs every journey at two sizes and counts. Arguments: the program, and a folder for pictures or nothing.

import { chromium } from "playwright-core";

import { Demo } from "./demo.mjs";
import journeys from "./journeys.mjs";
import { Visit } from "./visit.mjs";

const SIZES = [{ width: 1280, height: 900 }, { width: 360, height: 740 }];
const [program, pictures] = process.argv.slice(2);
const only = process.env.ONLY; // a part of a journey's name

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Whatever a page asks for, no name but this machine's is looked up.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
  ],
});
const shared = await Demo.start(program);
let passed = 0;
let failed = 0;

/** The problems of one journey at one size. */
async function problemsOf(journey, size) {
  const problems = [];
  const visits = [];
  let demo = shared;
  const open = async () => {
    const visit = await Visit.open(browser, demo, { size, script: journey.script ?? true, pictures });
    visits.push(visit);
    return visit;
  };
  try {
    if (journey.fresh) demo = await Demo.start(program);
    const visit = await open();
    await journey.walk(visit, demo, open);
  } catch (error) {
    problems.push(`${error.message} (at ${visits.at(-1)?.page.url()})`);
  } finally {
    await Promise.all(visits.map((visit) => visit.close()));
    if (demo === shared) await demo.noFaults();
    else await demo.stop();
  }
  return [...problems, ...visits.flatMap((visit) => visit.problems)];
}

try {
  for (const journey of journeys.filter(({ name }) => !only || name.includes(only))) {
    for (const size of SIZES) {
      const problems = await problemsOf(journey, size);
      const good = problems.length === 0;
      if (good) passed += 1;
      else failed += 1;
      console.log(`${good ? "ok    " : "FAILED"} ${journey.name} (${size.width} x ${size.height})`);
      for (const problem of new Set(problems)) console.log(`         ${problem}`);
    }
  }
} finally {
  await browser.close();
  await shared.stop();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
