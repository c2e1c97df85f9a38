// Each client, given only a base URL and a bearer key, reads the patient, searches through all pages, and gets an
// OperationOutcome when something is wrong. Arguments: the program, and a Python that has fhirpy, or nothing.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";

import { Client } from "fhir-kit-client";
import FHIR from "fhirclient";

import { Demo } from "../browser/demo.mjs";
import { connect } from "./connect.mjs";

const [program, python] = process.argv.slice(2);
const demo = await Demo.start(program);
let passed = 0;
let failed = 0;

async function check(name, walk) {
  try {
    await walk();
    passed += 1;
    console.log(`ok     ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}\n         ${error.stack}`);
  }
}

/** All Observations as the hospital has them, with a client of a few lines as the measure. */
async function observations(base, key, patient) {
  const ids = [];
  let pages = 0;
  let next = `${base}/Observation?patient=${patient}&_count=10`;
  while (next) {
    const page = await (await fetch(next, { headers: { authorization: `Bearer ${key}` } })).json();
    ids.push(...(page.entry ?? []).map(({ resource }) => resource.id));
    next = page.link.find(({ relation }) => relation === "next")?.url;
    pages += 1;
  }
  return { ids: ids.sort(), pages };
}

try {
  const { key, user } = demo;
  const base = await connect(demo, user);
  const patient = user.patient;
  const all = await observations(base, key, patient);
  assert.ok(all.pages > 2, `${all.pages} pages are too few to test with`);
  const search = `Observation?patient=${patient}&_count=10`;

  // It wants to live in a web server; there is none here.
  const storage = { get: async () => undefined, set: async (_, value) => value, unset: async () => true };
  const smart = FHIR({ headers: {}, url: "/" }, {}, storage).client({
    serverUrl: base,
    tokenResponse: { access_token: key, patient },
  });
  await check("fhirclient reads the patient", async () => {
    assert.equal((await smart.request(`Patient/${patient}`)).id, patient);
    assert.equal((await smart.patient.read()).id, patient);
  });
  await check("fhirclient searches through all pages", async () => {
    const found = await smart.request(search, { pageLimit: 0, flat: true });
    assert.deepEqual(found.map(({ id }) => id).sort(), all.ids);
  });
  await check("fhirclient resolves references", async () => {
    const bundle = await smart.request(`${search}&category=laboratory`, { resolveReferences: ["subject"], graph: true });
    assert.equal(bundle.entry[0].resource.subject.id, patient);
  });
  await check("fhirclient reads errors of the hospital and of the proxy", async () => {
    await assert.rejects(smart.request("Patient/nobody"), /not-found|Not Found/i);
    await assert.rejects(smart.request("Nonsense/1"), /no address of a FHIR R4 server/);
  });

  const kit = new Client({ baseUrl: base, bearerToken: key });
  await check("fhir-kit-client reads the patient", async () => {
    assert.equal((await kit.read({ resourceType: "Patient", id: patient })).id, patient);
  });
  await check("fhir-kit-client searches through all pages", async () => {
    let page = await kit.search({ resourceType: "Observation", searchParams: { patient, _count: "10" } });
    const ids = [];
    while (page) {
      ids.push(...(page.entry ?? []).map(({ resource }) => resource.id));
      page = await kit.nextPage({ bundle: page });
    }
    assert.deepEqual(ids.sort(), all.ids);
  });
  await check("fhir-kit-client searches by form", async () => {
    const found = await kit.search({
      resourceType: "Observation",
      searchParams: { patient, _count: "10" },
      options: { postSearch: true },
    });
    assert.equal(found.resourceType, "Bundle");
  });
  await check("fhir-kit-client reads the CapabilityStatement", async () => {
    const statement = await kit.capabilityStatement();
    assert.equal(statement.resourceType, "CapabilityStatement");
    assert.equal(statement.implementation.url, base);
  });
  await check("fhir-kit-client reads errors of the hospital and of the proxy", async () => {
    for (const [resourceType, id] of [["Patient", "nobody"], ["Nonsense", "1"]]) {
      const error = await kit.read({ resourceType, id }).then(() => assert.fail("it was found"), (error) => error);
      assert.equal(error.response.status, 404);
      assert.equal(error.response.data.resourceType, "OperationOutcome");
    }
  });
  const stranger = new Client({ baseUrl: base, bearerToken: "mb_sk_sbx_nobody" });
  await check("a wrong key gets an OperationOutcome", async () => {
    const asking = stranger.read({ resourceType: "Patient", id: patient });
    const error = await asking.then(() => assert.fail("it was found"), (error) => error);
    assert.equal(error.response.status, 401);
    assert.equal(error.response.data.resourceType, "OperationOutcome");
  });

  if (python) {
    await check("fhirpy reads the patient, searches through all pages, and reads errors", async () => {
      const { stdout } = await promisify(execFile)(python, ["client.py", base, key, patient]);
      assert.deepEqual(JSON.parse(stdout).sort(), all.ids);
    });
  } else {
    console.log("skipped: fhirpy could not be installed (python3 with venv and pip)");
  }
} finally {
  await demo.stop();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
