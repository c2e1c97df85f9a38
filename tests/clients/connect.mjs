// A patient connects without a browser: the hospital agrees by itself, and redirects are followed with their cookies.

/** Returns the base URL of the patient's record at the proxy. */
export async function connect(demo, user) {
  await fetch(`${demo.control}/auto-approve`, {
    method: "POST",
    body: JSON.stringify({ username: user.username }),
  });
  const { url } = await demo.session({ connection_id: demo.hospital });
  const cookies = new Map();
  let next = url;
  for (let step = 0; step < 12 && next; step += 1) {
    const site = new URL(next).host;
    const cookie = [...(cookies.get(site) ?? new Map())].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(next, { redirect: "manual", headers: { accept: "text/html", cookie } });
    for (const set of answer.headers.getSetCookie()) {
      const [name, value] = set.split(";")[0].split("=");
      if (!cookies.has(site)) cookies.set(site, new Map());
      cookies.get(site).set(name, value);
    }
    const location = answer.headers.get("location");
    next = location && new URL(location, next);
    if (next && !demo.origins.has(next.origin)) break;
    next = next?.href;
    await answer.arrayBuffer();
  }
  const headers = { authorization: `Bearer ${demo.key}` };
  const patient = await (await fetch(`${demo.base}/patients/patient-${demo.patients}`, { headers })).json();
  const connection = patient.connections?.[0];
  if (connection?.status !== "active") throw new Error(`not connected: ${JSON.stringify(patient)}`);
  return `${demo.base}/fhir/${connection.id}`;
}
