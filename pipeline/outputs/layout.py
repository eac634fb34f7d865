"""What lies where in an output: who writes it, who may delete it, and what makes it count.

The driver is the process that has the lock: that of `render`, `retry`, `repair` or `compact`. Only what a
part in records/ names is committed; all else is found again, made again or swept.

    path                          written by         deleted by      counts
    job.json                      driver, once       nobody          its job goes on here; parts repeat it
    train.json                    training, once     nobody          as job.json, of a training
    drivers/<epoch>.json          its driver         nobody          the newest has the lock, and seals parts
    drivers/<epoch>.stop          stop               nobody          while its driver runs, which then ends
    drivers/<epoch>.pause         pause              resume          while its driver runs, which then waits
    rows/part-*.parquet           driver, at start   driver          always: the table as it was last read
    rows/_written.json, _survey.json  driver     driver          while rows/ is as they say
    records/part-*.parquet        driver, compact    driver, repair  as parts/seals.py says; of a row the last
    failures/part-*.parquet       driver             driver          for rows without a record
    logs/part-*.parquet           driver             anybody         never: what happened to rows, for people
    invalid/part-*.parquet        driver             driver          always: rows that cannot be rendered
    scores/part-*.parquet         score              nobody          for the clips that they name; last wins
    clips/<2 hex>/<row_id>*       worker             driver, repair  where a record names it
    clips/<2 hex>/<row_id>*.xmp   worker             driver, repair  never: the label of the clip of that name
    extras/<row_id>*.safetensors  worker             driver, repair  where a record names it
    previews/<2 hex>/<row_id>*    worker, gallery    driver, repair  never: made from its clip
    pending/<row_id>-<tag>.json   worker             driver          until its row has a record
    checkpoints/<row_id>*         worker             driver          until its row has ended
    apart/<16 hex>.json           driver             nobody          its rows are neither adopted nor batched
    <name>/                       its driver         -               an output of its own (`doors.JobRunner`)
    chosen/<digest>.parquet       driver             nobody          the rows chosen in such an output
    tables/<digest>.parquet       Python             nobody          the job's table
    tables/added-*.parquet        add                nobody          always: rows after the table's own
    weights/<sha256>.safetensors  fleet()            fleet()         while its workers use them
    embeddings/, .probes/         worker             anybody         never: computed again
    damaged/<path>                repair             anybody         never: kept for people to look at
    .verify/<run>/                verify             verify          never
    .doctor-<run>/                doctor             doctor          never
    gallery/, report.html, .json  gallery, report    anybody         never: made again
    stars/<server>.jsonl          gallery --serve    anybody         stars and notes; of a clip the newest
    stars.jsonl                   gallery --serve    anybody         all of them together: made again
"""

from __future__ import annotations

CLAIM, TRAINING = "job.json", "train.json"  # which of them is there tells the two kinds of outputs apart
DRIVERS, ROWS, RECORDS, SCORES = "drivers", "rows", "records", "scores"
FAILURES, INVALID, LOGS = "failures", "invalid", "logs"
CLIPS, EXTRAS, PREVIEWS = "clips", "extras", "previews"
PENDING, CHECKPOINTS, APART = "pending", "checkpoints", "apart"
CHOSEN, TABLES = "chosen", "tables"
ADDED = "added-"  # how files in tables/ begin that `add` wrote
WEIGHTS = "weights"
PROBES, DAMAGED, SCRATCH = ".probes", "damaged", ".verify"
GALLERY, PICKS, PICK_FILES = "gallery", "stars.jsonl", "stars"
