"""Scripts that measure in the browser whether a page can be read."""

from __future__ import annotations

__all__ = ["CONTRAST"]

CONTRAST = """() => {
  const luminance = text => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const against = (e, name) => ratio(luminance(getComputedStyle(e)[name]), luminance(behind(e)));
  const texts = [...document.querySelectorAll('body *')].filter(e => !e.closest('svg')
    && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  const faint = '.q1, .q2, .q3, .q4, .gap';
  const marks = [...document.querySelectorAll('svg .mark')].filter(e => !e.matches(faint));
  return {
    texts: Math.min(...texts.map(e => against(e, 'color'))),
    marks: Math.min(...marks.map(e => against(e, 'stroke'))),
    counted: texts.length,
  };
}"""
"""Lowest contrast of texts and of marks in charts, and how many texts there are."""
