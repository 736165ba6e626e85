"""How the embedded model was made and what it can do; nothing here runs when kvroam is used.

`train` (with `corpus`, `vocabulary`, `network`, `phases`, `drills`, `lessons`), `sample` and `publish` make the shipped
files; `report` (with `exams`, `intervals`, `gates`, `report_page`) and `pruning` (with `cases`, `pruning_page`) measure
them. Each of these five is a command: `python -m kvroam.kvbackend.embedded.training.train --help`.
"""
