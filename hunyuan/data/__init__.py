"""From raw text to token ids on disk, and from those to the rows a trainer reads; no torch here.

Reading order: `shards` (what a token set is on disk), `recipe` (what the user asks for), `inputs`
(which files that means, dealt to tasks); one text each: `normalise`, `languages`, `quality`,
`personal`, `ngrams`; then `readers`, `steps`, `benchmarks` and `tokens` (the same as steps of
datatrove), `plan` (the stages in order), `prepare` (run them, again after a kill), `tally`,
`finish` and `report` (what came of it). From token sets to rows: `rows`, `mixture`, `dialogue`.

Only `quality`, `readers`, `steps`, `tokens`, `finish`, `plan` and `prepare` need datatrove, the
extra ``data``.
"""
