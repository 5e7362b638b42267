"""Questions about several networks at once, each answered by a resumable study that leaves a record."""
