// Brings the page up to date in place, so that it keeps its scroll position and
// what is unfolded. Without it the page reloads itself.
'use strict';
async function refresh() {
  if (document.hidden || !getSelection().isCollapsed) return;
  const stale = document.getElementById('stale');
  try {
    const answer = await fetch('/', {cache: 'no-store', signal: AbortSignal.timeout(5000)});
    if (!answer.ok) throw new Error(answer.status);
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const focused = document.activeElement.closest('details')?.id;
    for (const open of document.querySelectorAll('details[open]')) {
      const same = next.getElementById(open.id);
      if (same) same.open = true;
    }
    document.querySelector('header').replaceWith(next.querySelector('header'));
    document.querySelector('main').replaceWith(next.querySelector('main'));
    if (focused) document.getElementById(focused)?.querySelector('summary').focus({preventScroll: true});
  } catch {
    stale.hidden = false;
  }
}
setInterval(refresh, 10000);
document.addEventListener('visibilitychange', refresh);
