"""The command `framefleet export`, and its formats."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    commands={"Use clips": ["framefleet.plugins.export.command:export_command"]},
    export_formats={
        "webdataset": "framefleet.plugins.export.formats:TarShard",
        "parquet": "framefleet.plugins.export.formats:ParquetShard",
        "hf": "framefleet.plugins.export.formats:FolderShard",
        "folder": "framefleet.plugins.export.formats:NamedShard",
        "vbench": "framefleet.plugins.export.formats:VBenchShard",
        "trajectories": "framefleet.plugins.export.trajectories:TrajectoryTar",
        "trajectories-parquet": "framefleet.plugins.export.trajectories:TrajectoryParquet",
        "preferences": "framefleet.plugins.export.preferences:PairedClips",
    },
)
