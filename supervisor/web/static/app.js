// Keeps the page fresh by fetching the same address again. Without this script the page works, and stands still.
const main = document.querySelector("main[data-refresh]");
const every = Number(main?.dataset.refresh) || 0;

async function refresh() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "follow" });
    if (answer.redirected) {
      location.reload();
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("main");
    // Selected text stays selected: people copy ids from here.
    if (fresh && getSelection()?.isCollapsed !== false) {
      document.querySelector("main").replaceChildren(...fresh.childNodes);
      document.title = page.title;
    }
    document.body.classList.remove("away");
  } catch {
    document.body.classList.add("away");
  }
  setTimeout(refresh, document.hidden ? every * 5 : every);
}

if (every) setTimeout(refresh, every);
