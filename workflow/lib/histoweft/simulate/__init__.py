"""The demo tissue, with its truth.

`layout` names every file and needs nothing but the standard library; `study.simulate_study` makes the arrays;
`write.write_study` lays them out on disk as Space Ranger would, with the truth beside them.
"""
