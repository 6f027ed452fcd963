// The keys of a search field: Enter takes the first result, arrows walk, Escape goes back to the field.
// It finds field and results by the container's class, and clicks Streamlit's own buttons: it knows no code itself.
const waiting = new Map(); // by container: what was typed when Enter came before its results
const seenPicks = new Map();

export default function ({ data }) {
  const scope = document.querySelector("." + CSS.escape(data.scope));
  if (!scope) return;
  const field = () => scope.querySelector("input");
  const results = () => [...scope.querySelectorAll('[class*="st-key-found_"] button')];

  function take(button) {
    waiting.delete(data.scope);
    button.click();
  }

  function onKey(event) {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const buttons = results();
    const place = buttons.indexOf(event.target.closest("button"));
    let goal = null;
    if (event.target === field()) {
      const typed = event.target.value.trim();
      if (event.key === "Enter" && typed) {
        if (typed === data.query.trim() && buttons.length) {
          event.stopPropagation();
          event.preventDefault();
          take(buttons[0]);
        } else {
          waiting.set(data.scope, typed); // Streamlit sends the words now; their results are taken when they come
        }
        return;
      }
      if (event.key === "ArrowDown") goal = buttons[0];
      else waiting.delete(data.scope);
    } else if (place >= 0) {
      if (event.key === "ArrowDown") goal = buttons[(place + 1) % buttons.length];
      if (event.key === "ArrowUp") goal = place ? buttons[place - 1] : field();
      if (event.key === "Home") goal = buttons[0];
      if (event.key === "End") goal = buttons[buttons.length - 1];
      if (event.key === "Escape") goal = field();
    }
    if (goal) {
      event.preventDefault();
      event.stopPropagation();
      goal.focus();
    }
  }

  scope.addEventListener("keydown", onKey, true);

  // After a pick the list is gone: the next word can be typed at once.
  const before = seenPicks.get(data.scope);
  if (before !== undefined && data.picks > before) field()?.focus();
  seenPicks.set(data.scope, data.picks);

  // Enter came before the results: take the first now that they are here.
  const asked = waiting.get(data.scope);
  let timer = 0;
  if (asked && asked === data.query.trim()) {
    if (data.found) {
      timer = setTimeout(() => {
        const first = results()[0];
        if (first && field()?.value.trim() === asked) take(first);
      }, 60);
    } else {
      waiting.delete(data.scope);
    }
  }
  return () => {
    clearTimeout(timer);
    scope.removeEventListener("keydown", onKey, true);
  };
}
