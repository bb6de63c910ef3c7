"""``audioml shard``."""

import argparse
from dataclasses import asdict

from audioml.cli.settings import add_settings, read_settings
from audioml.cli.verbs import Verbs, add_json, at_least_one, print_json


def add_shard(verbs: Verbs) -> None:
    """Add ``audioml shard``."""
    shard = verbs.add_parser(
        "shard",
        help="pack a data set into shards, to be read from any store",
        description="Pack a data set's files, as they are, into tar archives in WebDataset's "
        "format, with an index that says where each is. Training reads single files out of them, "
        "from a disk or any store that fsspec knows: data.name=shards data.root=URL.",
        epilog="examples:\n"
        "  audioml shard configs/esc50_cnn.yaml --out /fast/esc50\n"
        "  audioml shard own.yaml --out s3://BUCKET/own --shard-mib 1024\n"
        "  audioml train own.yaml data.name=shards data.root=s3://BUCKET/own\n",
    )
    add_settings(shard)
    shard.add_argument("--out", required=True, metavar="URL", help="the folder; a path or a URL")
    shard.add_argument(
        "--shard-mib",
        type=at_least_one,
        default=256,
        metavar="N",
        help="size at which a new shard is begun [MiB] (default: %(default)s)",
    )
    add_json(shard)
    shard.set_defaults(run=_shard)


def _shard(arguments: argparse.Namespace) -> int:
    from audioml.datasets import load_configured
    from audioml.sharding import MIB, write_shards

    config = read_settings(arguments.settings)
    written = write_shards(
        load_configured(config.data),
        arguments.out,
        sample_rate=config.audio.sample_rate,
        n_threads=config.audio.decode_threads,
        shard_mib=arguments.shard_mib,
        skip_bad=config.data.on_bad_file == "skip",
        max_bad_share=config.data.max_bad_share,
    )
    if arguments.json:
        print_json(asdict(written))
        return 0
    print(
        f"{written.n_clips} clips of {written.n_files} files in {written.n_shards} shards, "
        f"{written.n_bytes / MIB:.1f} MiB"
    )
    if written.bad:
        print(f"{len(written.bad)} clips left out, whose files are bad")
    print(f"train on them with data.name=shards data.root={written.address}")
    return 0
