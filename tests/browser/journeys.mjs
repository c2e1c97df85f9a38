// The journeys. Each gets an open `Visit` and the `Demo`; its name is a promise.

import { createServer } from "node:http";

const REFERENCE = /\b[0-9A-Z]{4}-[0-9A-Z]{4}\b/;

const parameters = (visit) => Object.fromEntries(new URL(visit.page.url()).searchParams);

/** From a result page to the app, which is told who came back. */
async function backToTheApp(visit, session) {
  await visit.press("I am done");
  await visit.arrive("All done. Thank you");
  await visit.says("Sandbox Hospital");
  await visit.see("done");
  await visit.follow("Go back");
  await visit.page.waitForURL(/from=app/);
  const given = parameters(visit);
  visit.check(given.patient_id === session.patient_id, `came back as ${given.patient_id}`);
  visit.check(given.patient_session_id === session.id, `came back with session ${given.patient_session_id}`);
}

async function connect(visit, session) {
  await visit.go(session.url);
  await visit.agree();
  await visit.arrive("Connected to Sandbox Hospital");
}

/** A failed page says who must act, gives a code to read out, and offers a way on. */
async function failsPlainly(visit, name, ...texts) {
  await visit.page.getByText("Who needs to act").waitFor();
  await visit.says("What to do", "Reference", "Sandbox Hospital", ...texts);
  const code = await visit.page.locator("#reference").innerText();
  visit.check(REFERENCE.test(code), `the reference is “${code}”`);
  visit.check(await visit.page.getByRole("link", { name: "Try again" }).isVisible(), "there is no “Try again”");
  await visit.see(name);
}

/** Tells of a place that is not listed, wrongly at first. */
async function tellOfAMissingPlace(visit, session) {
  const { page } = visit;
  await visit.go(`${session.url}?q=${encodeURIComponent("Zzyzx Springs")}`);
  await page.getByText("Nothing found for “Zzyzx Springs”").waitFor();
  await visit.follow("Tell us about it");
  await visit.arrive("Which place is missing?");
  const name = page.getByLabel("Name of the hospital or clinic");
  visit.check((await name.inputValue()) === "Zzyzx Springs", "what was searched for is not in the form");
  await visit.see("not-listed", { dark: true });
  await page.getByLabel("Website where you see your results").fill("no address");
  visit.accept(422);
  await visit.press("Send");
  await page.getByText("Nothing was sent yet").waitFor();
  const website = page.getByLabel("Website where you see your results");
  visit.check((await website.getAttribute("aria-invalid")) === "true", "the field is not marked");
  visit.check(await website.evaluate((input) => input === document.activeElement), "the field has no focus");
  await visit.see("not-listed-wrong");
  await website.fill("my.zzyzx.example");
  await page.getByLabel("City and state").fill("Baker, CA");
  await visit.press("Send");
  await visit.arrive("Thank you. We have written it down");
  await visit.says("Demo Clinic");
  await visit.see("not-listed-thanks", { dark: true });
  await visit.follow("Search for another place");
  await visit.arrive("Connect your health records");
}

const journeys = [
  {
    name: "the keyboard finds the hospital, and the records arrive",
    async walk(visit, demo) {
      const { page } = visit;
      const session = await demo.session();
      await visit.go(session.url);
      await visit.arrive("Connect your health records");
      visit.check((await page.title()).includes("Demo Clinic"), "the title does not name the clinic");
      const box = page.getByRole("combobox", { name: "Find your hospital or clinic" });
      visit.check(await box.evaluate((input) => input === document.activeElement), "the search has no focus");
      await visit.see("start", { dark: true });
      await page.keyboard.type("qqqq");
      await page.getByText("Nothing found for “qqqq”").waitFor();
      await visit.see("start-nothing-found");
      await box.fill("");
      await page.keyboard.type("sandb");
      await page.getByText("1 place found.").waitFor();
      await visit.see("start-found");
      await page.keyboard.press("ArrowDown");
      const option = page.getByRole("option", { name: /Sandbox Hospital/ });
      visit.check((await option.getAttribute("aria-selected")) === "true", "the arrow chose nothing");
      await visit.see("start-chosen");
      await page.keyboard.press("Enter");
      await visit.arrive("You are going to Sandbox Hospital");
      await visit.says(new URL(demo.control).host.split(":")[0], "Demo Clinic");
      await visit.see("leaving", { dark: true });
      await visit.leave();
      await visit.arrive("Sign in");
      await visit.see("hospital-sign-in", { plain: false, dark: true });
      await visit.signIn();
      await visit.see("hospital-consent", { plain: false });
      await visit.press("Allow");
      await visit.arrive("Connected to Sandbox Hospital");
      await visit.see("connected-arriving");
      await visit.records();
      await page.getByText(/All here: [\d,]+ records\./).waitFor();
      visit.check((await page.locator(".counts dd").count()) > 3, "there are no counts");
      visit.check(await page.locator("[data-manual]").isHidden(), "a finished page still offers to refresh");
      await visit.says("The hospital knows you as");
      const name = await page.locator(".panel-value").first().innerText();
      visit.check(name.trim().includes(" ") && !name.includes("…"), `the patient is called “${name}”`);
      await visit.see("connected", { dark: true });
      await backToTheApp(visit, session);
    },
  },
  {
    name: "the whole journey works without scripts",
    script: false,
    async walk(visit, demo) {
      const session = await demo.session();
      await visit.go(session.url);
      await visit.page.getByRole("searchbox").fill("sandbox hosp");
      await visit.page.getByRole("button", { name: "Search" }).click();
      await visit.page.getByText("1 place found.").waitFor();
      await visit.see("start-found");
      await visit.agree();
      await visit.arrive("Connected to Sandbox Hospital");
      await visit.records();
      await visit.says("All here");
      await visit.see("connected");
      await backToTheApp(visit, session);
    },
  },
  {
    name: "a place that is not listed is told to the clinic",
    async walk(visit, demo) {
      await tellOfAMissingPlace(visit, await demo.session());
    },
  },
  {
    name: "a place that is not listed is told without scripts",
    script: false,
    async walk(visit, demo) {
      await tellOfAMissingPlace(visit, await demo.session());
    },
  },
  {
    name: "what was left out is named, and can be added",
    async walk(visit, demo) {
      const session = await demo.session();
      await visit.go(session.url);
      await visit.agree(["Immunization", "AllergyIntolerance"]);
      await visit.arrive("Connected to Sandbox Hospital, with gaps");
      const gaps = await visit.page.locator(".gaps li").allInnerTexts();
      visit.check(gaps.sort().join() === "Allergies,Vaccines", `the gaps are ${gaps}`);
      await visit.records();
      await visit.see("gaps", { dark: true });
      await visit.follow("Try again");
      await visit.arrive("You are going to Sandbox Hospital");
      await visit.says("Last time some things were left out", "Vaccines", "Allergies");
      await visit.see("leaving-again");
      await visit.leave();
      await visit.signIn();
      await visit.press("Allow");
      await visit.heading("Connected to Sandbox Hospital").and(visit.page.getByText(/Hospital$/)).waitFor();
      await visit.records();
      await backToTheApp(visit, session);
    },
  },
  {
    name: "who says no is told that nothing was read, and may still connect",
    async walk(visit, demo) {
      const session = await demo.session();
      await visit.go(session.url);
      await visit.choose();
      await visit.leave();
      await visit.signIn();
      await visit.press("Deny");
      await visit.arrive("Nothing was shared");
      await visit.see("declined", { dark: true });
      await visit.follow("Connect another hospital");
      await visit.choose();
      await visit.says("Last time you chose not to share");
      await visit.page.goBack();
      await visit.page.goBack();
      await visit.arrive("Nothing was shared");
      await visit.press("I am done");
      await visit.arrive("You have left without connecting");
      await visit.see("done-nothing");
      await visit.follow("Go back");
      await visit.page.waitForURL(/from=app/);
      visit.check(parameters(visit).patient_session_id === session.id, "the app is not told which session");
    },
  },
  {
    name: "a code the hospital calls expired asks the patient to try again",
    async walk(visit, demo) {
      const session = await demo.session();
      await demo.faults({ token_error: { error: "invalid_grant", urn: "oauth2:token:code-invalid-or-expired" } });
      await visit.go(session.url);
      await visit.agree();
      await failsPlainly(visit, "failed-start-again", "That took too long", "You");
      await demo.noFaults();
      await visit.follow("Try again");
      await visit.says("Last time it did not work");
      await visit.leave();
      await visit.signIn();
      await visit.press("Allow");
      await visit.arrive("Connected to Sandbox Hospital");
    },
  },
  {
    name: "an app the hospital does not know is not the patient's fault",
    async walk(visit, demo) {
      const session = await demo.session();
      await demo.faults({ authorize_error: "unauthorized_client" });
      await visit.go(session.url);
      await visit.choose();
      await visit.leave();
      await failsPlainly(visit, "failed-set-up", "You did nothing wrong");
      await visit.follow("Connect another hospital");
      await visit.arrive("Connect your health records");
    },
  },
  {
    name: "a hospital that breaks down after consent is named as the one to act",
    async walk(visit, demo) {
      const session = await demo.session();
      await demo.faults({ token_endpoint: "503" });
      await visit.go(session.url);
      await visit.agree();
      await failsPlainly(visit, "failed-hospital", "The hospital’s IT team");
    },
  },
  {
    name: "a hospital that answers with a web page is reached by its other description",
    fresh: true, // what was discovered once is remembered
    async walk(visit, demo) {
      const session = await demo.session();
      await demo.faults({ smart_configuration: "html" });
      await connect(visit, session);
    },
  },
  {
    name: "a hospital that does not say where to sign in fails plainly",
    fresh: true,
    async walk(visit, demo) {
      const session = await demo.session();
      await demo.faults({ smart_configuration: "missing" });
      await visit.go(session.url);
      await visit.choose();
      await visit.see("leaving-unknown-host");
      await visit.leave();
      await failsPlainly(visit, "failed-front-door");
    },
  },
  {
    name: "going back and loading again never exchanges a second time",
    async walk(visit, demo) {
      const { page } = visit;
      const session = await demo.session();
      const before = await demo.exchanges();
      await connect(visit, session);
      const result = page.url();
      visit.check((await demo.exchanges()) === before + 1, "one sign-in is not one exchange");
      await page.reload();
      await visit.arrive("Connected to Sandbox Hospital");
      visit.check(visit.callbacks.length === 1, `${visit.callbacks.length} ways back`);
      visit.check(page.url() === result, "the result, loaded again, is another page");
      await page.goto(session.url);
      await visit.page.getByText("Connected so far").waitFor();
      const card = page.locator("a.card", { hasText: "Sandbox Hospital" });
      visit.check((await card.innerText()).includes("Connected"), "the connected place is not marked");
      await visit.see("start-connected", { dark: true });
      await page.goBack();
      await visit.arrive("Connected to Sandbox Hospital");
      // In the browser that left, a used way back leads to what came of it.
      await visit.go(visit.callbacks[0]);
      await visit.arrive("Connected to Sandbox Hospital");
      visit.check(page.url() === result, "a used way back leads to another page");
      visit.check((await demo.exchanges()) === before + 1, "a code was exchanged twice");
    },
  },
  {
    name: "a way back loaded again before it was answered leads to the one result",
    async walk(visit, demo) {
      const session = await demo.session();
      const before = await demo.exchanges();
      await visit.go(session.url);
      const back = await visit.agreeAndStay();
      // The cookie as it was when the browser asked the first time.
      const cookie = (await visit.context.cookies(demo.base)).map(({ name, value }) => `${name}=${value}`).join("; ");
      const ask = async () => {
        const answer = await fetch(back, { headers: { cookie }, redirect: "manual" });
        return answer.headers.get("location");
      };
      const places = [...(await Promise.all([ask(), ask()])), await ask()];
      visit.check(places[0]?.includes("/result/"), `the way back leads to ${places[0]}`);
      visit.check(new Set(places).size === 1, `three times the way back leads to ${places.join(" and ")}`);
      await visit.go(new URL(places[0], demo.base).href);
      await visit.arrive("Connected to Sandbox Hospital");
      visit.check((await demo.exchanges()) === before + 1, "a code was exchanged twice");
    },
  },
  {
    name: "the back button brings back a leaving page that works",
    async walk(visit, demo) {
      const { page } = visit;
      const session = await demo.session();
      await visit.go(session.url);
      await visit.choose();
      await visit.leave();
      await visit.arrive("Sign in");
      await page.goBack();
      await visit.arrive("You are going to Sandbox Hospital");
      await visit.leave();
      await visit.signIn();
      await visit.press("Allow");
      await visit.arrive("Connected to Sandbox Hospital");
    },
  },
  {
    name: "a way back opened in another browser asks to start again",
    async walk(visit, demo, another) {
      const session = await demo.session();
      await connect(visit, session);
      const before = await demo.exchanges();
      const other = await another();
      other.accept(400);
      await other.go(visit.callbacks[0]);
      await other.arrive(/start again/i);
      await other.see("start-again");
      visit.check((await demo.exchanges()) === before, "another browser exchanged the code");
    },
  },
  {
    name: "a way back that never reached us is not usable elsewhere",
    async walk(visit, demo, another) {
      const session = await demo.session();
      const before = await demo.exchanges();
      await visit.go(session.url);
      const stolen = await visit.agreeAndStay();
      const other = await another();
      other.accept(400);
      await other.go(stolen);
      await other.arrive("Please start again in one browser");
      await other.see("other-browser");
      visit.check((await demo.exchanges()) === before, "another browser exchanged the code");
    },
  },
  {
    name: "an unknown link is explained",
    async walk(visit, demo) {
      visit.accept(404);
      await visit.go(`${demo.base}/c/${"0".repeat(32)}`);
      await visit.arrive("We do not know this link");
      await visit.says("Practice data");
      await visit.see("unknown-link");
      await visit.go(`${demo.base}/nothing-here`);
      await visit.arrive("There is no page here");
      await visit.says("Practice data");
      await visit.see("no-page");
    },
  },
  {
    name: "several connections fit into one visit",
    async walk(visit, demo) {
      const session = await demo.session();
      await connect(visit, session);
      await visit.follow("Connect another hospital");
      await visit.agree(["Goal"]);
      await visit.page.waitForURL(/\/result\//);
      await visit.follow("Connect another hospital");
      await visit.arrive("Connect your health records");
      const rows = await visit.page.locator("#connected ~ ul .row-name").allInnerTexts();
      visit.check(rows.join() === "Sandbox Hospital", `connected so far: ${rows}`);
      await visit.choose();
      await visit.leave();
      await visit.signIn();
      await visit.press("Deny");
      await visit.page.waitForURL(/\/result\//);
      await visit.follow("Connect another hospital");
      await visit.see("start-after-several");
      await visit.agree();
      await visit.arrive("Connected to Sandbox Hospital");
      await visit.records();
      await backToTheApp(visit, session);
      await visit.go(session.url);
      await visit.arrive("All done. Thank you");
    },
  },
  {
    name: "a direct session goes straight to the hospital and back to the app",
    async walk(visit, demo) {
      const session = await demo.session({ connection_id: demo.hospital });
      await visit.go(session.url);
      await visit.arrive("Sign in");
      await visit.signIn();
      await visit.press("Allow");
      await visit.page.waitForURL(/from=app/);
      const given = parameters(visit);
      visit.check(given.success === "true", `success is ${given.success}`);
      visit.check(given.patient_id === session.patient_id, `came back as ${given.patient_id}`);
      visit.check(given.patient_session_id === session.id, `came back with session ${given.patient_session_id}`);
      await visit.see("home", { plain: false, dark: true });
    },
  },
  {
    name: "a direct session that is denied says so to the app",
    async walk(visit, demo) {
      const session = await demo.session({ connection_id: demo.hospital });
      await visit.go(session.url);
      await visit.signIn();
      await visit.press("Deny");
      await visit.page.waitForURL(/from=app/);
      const given = parameters(visit);
      visit.check(given.success === "false", `success is ${given.success}`);
      visit.check(given.error === "user_denied", `error is ${given.error}`);
    },
  },
  {
    name: "a clinician opens an app in a chart",
    async walk(visit, demo) {
      await visit.go(demo.charts);
      await visit.page.getByLabel("In the chart of").selectOption(demo.patient);
      await visit.page.getByRole("button", { name: "Open the app" }).first().click();
      await visit.arrive("A small app");
      const context = await demo.launchContext(parameters(visit).mb_launch);
      visit.check(context.patient === `Patient/${demo.patient}`, `the chart is ${context.patient}`);
      visit.check(context.fhir_user.startsWith("Practitioner/"), `opened by ${context.fhir_user}`);
    },
  },
  {
    name: "a launch that fails tells the clinician what to do",
    async walk(visit, demo) {
      await demo.faults({ authorize_error: "server_error" });
      visit.accept(502);
      await visit.go(demo.charts);
      await visit.page.getByRole("button", { name: "Open the app" }).first().click();
      await visit.arrive("Sandbox Hospital (charts) is not answering");
      await visit.says("Who needs to act", "Reference");
      await visit.see("launch-failed", { dark: true });
    },
  },
  {
    name: "an app that is opened in a frame of the EHR comes to its end there, or says why not",
    async walk(visit, demo) {
      // The EHR: a page of another port, once of the same site and once of another.
      for (const [host, ends] of [["localhost", "A small app"], ["127.0.0.1", "The app cannot be opened inside this page"]]) {
        const ehr = createServer(async (_, answer) => {
          answer.setHeader("content-type", "text/html");
          answer.end(`<!doctype html><title>EHR</title><iframe src="${await demo.openInChart()}"></iframe>`);
        });
        await new Promise((ready) => ehr.listen(0, host, ready));
        const origin = `http://${host}:${ehr.address().port}`;
        demo.origins.add(origin);
        visit.accept(400);
        visit.accept(404);
        visit.accept("Content Security Policy");
        try {
          await visit.go(`${origin}/`);
          await visit.page.frameLocator("iframe").getByRole("heading", { level: 1, name: ends }).waitFor();
        } finally {
          ehr.closeAllConnections();
          ehr.close();
        }
      }
    },
  },
];

export default journeys;
