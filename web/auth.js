// Who is signed in. On the laptop the address that the server printed carries a token behind the #; on AWS Cognito's hosted page gives
// a code (authorization code with PKCE), which is exchanged for tokens. They live in this tab's session storage: no cookie, so no other
// site can act in this name.
const STORE = sessionStorage;
let config = null;

export function token() {
  return STORE.getItem("token") ?? "";
}

async function configuration() {
  config ??= await (await fetch("/config.json", { cache: "no-store" })).json();
  return config;
}

export async function signedIn() {
  const { auth } = await configuration();
  if (auth === "token") return takeToken() || tell("Open the address that the server printed when it started: it carries your token.");
  const code = new URLSearchParams(location.search).get("code");
  if (code) await exchange({ grant_type: "authorization_code", code, code_verifier: STORE.getItem("verifier") ?? "" });
  if (token() && Number(STORE.getItem("expires")) > Date.now()) return renewed();
  await signIn();
  return false;
}

// From the address, on the laptop alone: on AWS a link could sign somebody out with it.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    STORE.setItem("token", given);
    history.replaceState(null, "", "/#/decisions");
  }
  return token() !== "";
}

export function signOut(why) {
  STORE.clear();
  tell(why);
  throw new Error(why);
}

function tell(text) {
  const line = Object.assign(document.createElement("p"), { className: "failed", textContent: text });
  document.getElementById("main").replaceChildren(line);
  return false;
}

async function signIn() {
  const { domain, client } = await configuration();
  const verifier = base64(crypto.getRandomValues(new Uint8Array(48)));
  const state = base64(crypto.getRandomValues(new Uint8Array(16)));
  STORE.setItem("verifier", verifier);
  STORE.setItem("state", state);
  const challenge = base64(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
  const query = new URLSearchParams({
    response_type: "code", client_id: client, redirect_uri: `${location.origin}/`, state,
    scope: "openid papertape/read papertape/trade papertape/approve", code_challenge: challenge, code_challenge_method: "S256",
  });
  location.assign(`https://${domain}/oauth2/authorize?${query}`);
}

async function exchange(fields) {
  const { domain, client } = await configuration();
  const state = new URLSearchParams(location.search).get("state");
  if (fields.code && (!state || state !== STORE.getItem("state"))) return signOut("The sign-in was not begun here: start again.");
  const body = new URLSearchParams({ client_id: client, redirect_uri: `${location.origin}/`, ...fields });
  const response = await fetch(`https://${domain}/oauth2/token`, { method: "POST", body });
  if (!response.ok) return signOut("Signing in was refused: start again.");
  const tokens = await response.json();
  STORE.setItem("token", tokens.access_token);
  STORE.setItem("expires", String(Date.now() + tokens.expires_in * 1000));
  if (tokens.refresh_token) STORE.setItem("refresh", tokens.refresh_token);
  history.replaceState(null, "", "/" + (location.hash || "#/decisions"));
}

// Before the token ends, another is asked for.
function renewed() {
  const left = Number(STORE.getItem("expires")) - Date.now() - 60000;
  const refresh = STORE.getItem("refresh");
  if (refresh) setTimeout(() => exchange({ grant_type: "refresh_token", refresh_token: refresh }).then(renewed), Math.max(left, 1000));
  return true;
}

function base64(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
