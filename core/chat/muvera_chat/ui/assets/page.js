// Citations open the card of their source, and the conversation stays scrolled to its end while an answer grows.
(() => {
  "use strict";
  const NEAR = 120; // pixels above the end within which the reader counts as being at the end

  function openCard(id) {
    const card = document.getElementById(id);
    if (!card) return;
    document.querySelectorAll(".mv-found").forEach((other) => other.classList.remove("mv-found"));
    card.open = true;
    card.classList.add("mv-found");
    card.scrollIntoView({ block: "nearest", behavior: "smooth" });
    card.querySelector("summary").focus({ preventScroll: true });
  }

  document.addEventListener("click", (event) => {
    const citation = event.target.closest && event.target.closest("a.mv-cite");
    if (!citation) return;
    event.preventDefault();
    openCard(citation.hash.slice(1));
  });

  let isAtEnd = true;
  document.addEventListener(
    "scroll",
    (event) => {
      const box = event.target;
      if (box.id === "mv-conversation") isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    },
    true,
  );
  new MutationObserver((changes) => {
    const box = document.getElementById("mv-conversation");
    if (!box || !changes.some((change) => box.contains(change.target))) return;
    const last = box.querySelector("#mv-current .mv-turn");
    if (!last) return;
    if (last.querySelector(".mv-sources")) {
      last.scrollIntoView({ block: "nearest" }); // the whole answer, from its question on, if it fits
    } else if (isAtEnd) {
      box.scrollTop = box.scrollHeight;
    }
  }).observe(document, { childList: true, subtree: true, characterData: true });
})();
