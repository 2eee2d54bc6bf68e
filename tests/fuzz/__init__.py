"""Attacks on the program: mutated inputs of every kind, laws of physics and money, and kills.

`python -m tests.fuzz --help` says how; `tests/test_fuzz.py` runs a short part of each. Everything
follows from a seed: the same seed gives the same inputs on every machine.

    words    what is put in place of a value        mutate   changes of trees, tables and bytes
    draw     valid values from a schema             seeds    small files to begin with
    kinds    kinds of input: how one is made        judge    runs an input, says what was wrong
    orders   what follows a file                    readers  what no verb reads, or not deeply
    launches files of other trainers                recorded timelines, execution traces, recordings
    trainings phases, adapters, mixes, plans        logs     of other schedulers, and their setting
    pages    results laid out, requests served
    pool     the child process, its bounds          shrink   smaller inputs that fail alike
    plans    random valid scenarios                 laws     what must hold of their results
    lawbook  where laws stand                       trained  those of phases, adapters, ranks
    kill     signals at random moments
"""
