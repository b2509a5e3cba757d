// The shell: who is signed in, which page is shown, what a form writes. Pages come as HTML from the API, charts as JSON.
import { signedIn, token, signOut } from "./auth.js";
import "./candles.js";
import { drawCharts, forgetCharts } from "./charts.js";
import "./training.js";

export const API = "/v1/app/api/";
const PAGES = "/v1/app/pages/";
const main = document.getElementById("main");
const notices = document.getElementById("notices");

export async function call(path, options = {}) {
  const response = await fetch(path.startsWith("/") ? path : API + path, {
    ...options,
    headers: { Authorization: `Bearer ${token()}`, ...(options.body ? { "Content-Type": "application/json" } : {}), ...options.headers },
  });
  if (response.status === 401) return signOut("You are signed out: the token was refused.");
  const body = response.headers.get("Content-Type")?.startsWith("application/json") ? await response.json() : await response.text();
  if (!response.ok) throw Object.assign(new Error(sentence(body) || `${response.status} ${response.statusText}`), { status: response.status });
  return body;
}

// One line from what the API answers when it refuses.
function sentence(body) {
  if (typeof body === "string") return body.slice(0, 300);
  if (body.message) return body.message;
  if (body.errors) return body.errors.map((one) => `${one.field}: ${one.allowed} (was ${one.value})`).join("; ");
  return body.message;
}

export function notify(text, kind = "done") {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  notices.append(line);
  setTimeout(() => line.remove(), kind === "failed" ? 20000 : 6000);
}

// --- pages

export function shown() {
  return location.hash.replace(/^#\//, "") || "decisions";
}

function show() {
  if (!location.hash.startsWith("#/") && location.hash !== "") return;
  const path = shown();
  for (const link of document.querySelectorAll("nav a")) {
    const current = path.split(/[/?]/)[0] === link.getAttribute("href").slice(2);
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  htmx.ajax("GET", PAGES + path, { target: "#main", swap: "innerHTML" }).then(() => main.focus({ preventScroll: true }));
}

export function refresh() {
  return htmx.ajax("GET", PAGES + shown(), { target: "#main", swap: "innerHTML" });
}

document.body.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers.Authorization = `Bearer ${token()}`;
});
// A page that nobody sees asks for nothing, and asks once when it is looked at again.
document.body.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.detail.elt.getAttribute("hx-trigger")?.startsWith("every")) event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) htmx.trigger(document.body, "seen");
});
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target === main) forgetCharts(main);
});
document.body.addEventListener("htmx:afterSwap", (event) => {
  drawCharts(event.detail.target);
  const title = main.querySelector("h1")?.textContent;
  document.title = title ? `${title} · Papertape` : "Papertape";
});
document.body.addEventListener("htmx:responseError", (event) => failed(event.detail.xhr));
document.body.addEventListener("htmx:sendError", () => failed(null));

function failed(xhr) {
  if (xhr?.status === 401) return signOut("You are signed out: the token was refused.");
  let text = "The server does not answer. The page shows what was known before.";
  if (xhr) {
    try {
      text = sentence(JSON.parse(xhr.responseText)) || text;
    } catch {
      text = `${xhr.status} ${xhr.statusText}`;
    }
  }
  if (main.querySelector(".loading")) {
    main.replaceChildren(Object.assign(document.createElement("p"), { className: "failed", textContent: text }));
  } else {
    notify(text, "failed");
  }
}

// --- a form that only asks (data-open) is an address: the page with the fields that have a value

document.body.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.open) return;
  event.preventDefault();
  const asked = [...new FormData(form)].filter(([, value]) => value !== "");
  location.hash = `#/${form.dataset.open}?${new URLSearchParams(asked)}`;
});

// --- writes: a form says where (data-write), how (data-method), and whether it asks for a reason (data-reason)

document.body.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.write) return;
  event.preventDefault();
  const button = event.submitter;
  const body = values(form, button);
  if (form.dataset.confirm || form.dataset.reason !== undefined) {
    const answer = await confirmed(form.dataset.confirm || button.textContent, form.dataset.text || "", form.dataset.reason !== undefined);
    if (!answer) return;
    if (form.dataset.reason !== undefined) body.reason = answer.reason;
  }
  // The key is the form's until the write is answered: a second click is the same write.
  form.dataset.key ||= crypto.randomUUID();
  button.disabled = true;
  try {
    const done = await call(form.dataset.write, {
      method: form.dataset.method || "POST",
      body: JSON.stringify(body),
      headers: { "Idempotency-Key": form.dataset.key },
    });
    delete form.dataset.key;
    notify(done?.message || "Done.");
    if (done?.open) location.hash = done.open;
    else await refresh();
  } catch (error) {
    // Without an answer, or with one that leaves open what was done, another click must be the same write.
    if (error.status < 500) delete form.dataset.key;
    notify(error.message, "failed");
  } finally {
    button.disabled = false;
  }
});

// Names with dots are nested; number fields are numbers, ticked boxes true, empty fields left out.
function values(form, button) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || (field.type === "radio" && !field.checked) || (field.type === "submit" && field !== button)) continue;
    const value = field.type === "checkbox" ? field.checked : field.type === "number" && field.value !== "" ? Number(field.value) : field.value;
    if (value === "") continue;
    const path = field.name.split(".");
    let place = body;
    for (const part of path.slice(0, -1)) place = place[part] ??= {};
    place[path.at(-1)] = field.dataset.text !== undefined ? String(field.value) : value;
  }
  return body;
}

function confirmed(title, text, reason) {
  const dialog = document.getElementById("confirm");
  const field = dialog.querySelector("input");
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  document.getElementById("confirm-reason").hidden = !reason;
  field.required = reason;
  field.value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    document.getElementById("confirm-no").onclick = () => dialog.close("no");
    dialog.onclose = () => resolve(dialog.returnValue === "yes" ? { reason: field.value } : null);
  });
}

// --- light and dark

const scheme = document.getElementById("scheme");
function paint(wanted) {
  if (wanted) document.documentElement.dataset.scheme = wanted;
}
paint(localStorage.getItem("scheme"));
scheme.addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
  localStorage.setItem("scheme", dark ? "light" : "dark");
  paint(dark ? "light" : "dark");
  refresh();
});

window.addEventListener("hashchange", show);
if (await signedIn()) show();
