"""Bad input of every kind, by seed: each case is accepted, or refused with exit code 2 and a hint.

python -m tools.fuzz --seed 7 --cases 1000        # counts by kind, then every defect
python -m tools.fuzz --seed 7 --only 123 --keep   # one case again; its files stay, and what it printed
"""
