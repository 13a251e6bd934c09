"""What feeds a prior's training: rows of token corpora in a global order that can be continued."""
