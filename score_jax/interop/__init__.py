"""Published weights of other code bases, as runs of ours; and our U-Net for theirs.

python -m score_jax.interop score_sde CHECKPOINT.pth --config=configs/... --workdir=FOLDER

A file or folder of theirs that is missing, damaged, or laid out otherwise is a UserError with the
reason, whatever its reader raises (`importing.import_weights`).
"""
