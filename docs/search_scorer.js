// Order of search results: pages for users first, then functions; results of benchmarks, pages for
// developers and the changelog last. Sphinx scores a word in a text alike on all pages.
var Scorer = {
  score: ([docname, title, anchor, descr, score]) => {
    const first = docname.split("/")[0];
    const usersRead = ["start", "guides", "tutorials", "model", "glossary", "installation"];
    if (usersRead.includes(first)) return 2 * score;
    if (["benchmarks", "developer", "changelog", "references"].includes(first)) return score / 2;
    return score;
  },
  // Sphinx's values for the rest.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
