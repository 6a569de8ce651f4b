"""Workers on other machines: by Ray (`ray`), or by joining without it (`join`). The gateway's side imports no torch."""
