"""The peers' own tests, run with safepickle in the place of the peer. Nothing of theirs is kept here."""
