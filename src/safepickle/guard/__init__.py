"""The guarded load: a pickle machine of our own that decides before it acts.

`machine` interprets the opcodes. It knows no policy: what a name may do is in `rules`, what the user allows in
`allowing`. It asks a *backend*: `guarded` decides, and then values are really built (`load_backend`) or only described
(`inspect_backend`, for `safepickle.inspect`). The load and `inspect` run the same machine over the same rules.
"""
