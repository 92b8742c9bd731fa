// what the theme leaves out for keyboards and screen readers: a name of its dialog, and a way into tables that scroll
document.querySelector(".md-search")?.setAttribute("aria-label", "Search")

function reachable() {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])"))
    if (table.scrollWidth > table.clientWidth) {
      table.tabIndex = 0
      table.setAttribute("role", "region")
      table.setAttribute("aria-label", "Table, scrolls sideways")
    }
}
new MutationObserver(reachable).observe(document.body, { childList: true, subtree: true })
addEventListener("resize", reachable)
reachable()
