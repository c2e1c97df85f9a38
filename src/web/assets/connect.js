// Makes the patient's pages quicker: live search, live progress, copy buttons. Every page works without it.
(() => {
  "use strict";
  const AT_LEAST = 2; // letters before a search is worth asking for
  const QUIET = 150; // ms without a key before it is asked for
  const POLL = { first: 2000, slowest: 20000, total: 15 * 60 * 1000 }; // ms

  const ask = async (url, signal) => {
    const answer = await fetch(url, { headers: { Accept: "text/html" }, credentials: "same-origin", signal });
    if (!answer.ok) throw new Error(String(answer.status));
    return new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-region]");
  };

  // The region itself stays, because only a live region that was there before is read out.
  const say = (region, words) => {
    const status = region.querySelector("[data-status]");
    if (status && status.textContent !== words) status.textContent = words;
  };
  const show = (region, fresh) => {
    if (!fresh) throw new Error("no region");
    say(region, fresh.querySelector("[data-status]")?.textContent ?? "");
    region.querySelector("[data-content]").replaceChildren(...fresh.querySelector("[data-content]").childNodes);
    if (fresh.dataset.patient) say(document.querySelector("[data-whose]"), fresh.dataset.patient);
    region.toggleAttribute("data-finished", fresh.hasAttribute("data-finished"));
  };

  const finder = (form, region) => {
    const input = form.querySelector("input[name=q]");
    let timer, running, active = -1, asked = input.value.trim();
    const options = () => [...region.querySelectorAll(".card")]; // greyed ones too: their reason is to be heard
    const choose = (index) => {
      const all = options();
      active = index < all.length ? index : -1; // one step past the end is the box itself
      all.forEach((card, at) => {
        card.classList.toggle("is-active", at === active);
        card.setAttribute("aria-selected", String(at === active));
      });
      if (active < 0) return input.removeAttribute("aria-activedescendant");
      input.setAttribute("aria-activedescendant", all[active].id);
      all[active].scrollIntoView({ block: "nearest" });
    };
    // Combobox roles belong here: without this script the cards are plain links in a list.
    const dress = () => {
      const list = region.querySelector(".cards");
      input.setAttribute("aria-expanded", String(list !== null));
      list?.setAttribute("role", "listbox");
      list?.querySelectorAll("li").forEach((item) => item.setAttribute("role", "presentation"));
      list?.querySelectorAll(".card").forEach((card, at) => {
        card.id = `option-${at}`;
        card.setAttribute("role", "option");
        if (!card.matches("a")) card.setAttribute("aria-disabled", "true");
      });
      choose(-1);
    };
    const search = async () => {
      const words = input.value.trim();
      if (words === asked || (words.length > 0 && words.length < AT_LEAST)) return;
      running?.abort();
      running = new AbortController();
      const { signal } = running;
      const page = new URL(form.action);
      page.search = words ? String(new URLSearchParams({ q: words })) : "";
      const part = new URL(page);
      part.searchParams.set("fragment", "1");
      region.setAttribute("aria-busy", "true");
      try {
        show(region, await ask(part, signal));
        asked = words;
        history.replaceState(null, "", page);
        dress();
      } catch {
        if (signal.aborted) return;
        say(region, form.dataset.silent);
      }
      region.removeAttribute("aria-busy");
    };
    input.setAttribute("role", "combobox");
    input.setAttribute("aria-autocomplete", "list");
    input.setAttribute("aria-controls", "results-list");
    dress();
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(search, QUIET);
    });
    input.addEventListener("focus", () => {
      if (matchMedia("(max-width: 30rem)").matches && input.value) form.scrollIntoView({ block: "start" });
    });
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "ArrowDown") choose(active + 1);
      else if (event.key === "ArrowUp") choose(active < 0 ? options().length - 1 : active - 1);
      else if (event.key === "Enter" && active >= 0) options()[active].click(); // nothing, on a greyed one
      else if (event.key === "Escape" && active >= 0) choose(-1);
      else if (event.key === "Escape" && input.value) {
        input.value = "";
        search();
      } else return;
      event.preventDefault();
    });
  };

  const progress = (region) => {
    const manual = document.querySelector("[data-manual]"); // the link to load the page again: the way out
    let wait = POLL.first, spent = 0;
    const later = () => {
      const finished = region.hasAttribute("data-finished");
      if (manual) manual.hidden = finished || (wait < POLL.slowest && spent < POLL.total);
      if (finished || spent >= POLL.total) return;
      setTimeout(async () => {
        spent += wait;
        wait = Math.min(wait * 1.3, POLL.slowest);
        try {
          if (!document.hidden) show(region, await ask(region.dataset.poll));
        } catch {
          wait = POLL.slowest;
        }
        later();
      }, wait);
    };
    later();
  };

  const copy = (button) => {
    const label = button.querySelector("[data-label]");
    const before = label.textContent;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
      label.textContent = button.dataset.copied;
      setTimeout(() => { label.textContent = before; }, 2000);
    });
  };

  const form = document.querySelector("form[data-finder]");
  const results = document.getElementById("results");
  if (form && results) finder(form, results);
  document.querySelectorAll("[data-poll]").forEach(progress);
  if (navigator.clipboard) document.querySelectorAll("button[data-copy]").forEach(copy);

  // A second press must not begin a second sign-in; a page brought back by the back button may be used again.
  document.querySelectorAll("form[data-once]").forEach((once) => {
    const busy = (yes) => once.querySelector("button").setAttribute("aria-busy", String(yes));
    once.addEventListener("submit", (event) => {
      if (once.querySelector("button").getAttribute("aria-busy") === "true") event.preventDefault();
      busy(true);
    });
    window.addEventListener("pageshow", () => busy(false));
  });
})();
