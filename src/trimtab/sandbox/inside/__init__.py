"""The part of the sandbox that runs inside it: plain Python, no import of trimtab, nothing from outside the stdlib.

`box` builds the walls, `zygote` is the warm interpreter that forks for each job, `confine` takes the last rights
away, `program` serves the untrusted program, `tester` judges it from another process, `wire` is the only language
they share.
"""
