"""The store on one machine: one folder, no server. DECISIONS.md says why it is made so."""
