"""The paper: posterior over weights under known shifts, acquisitions, domains, design loop."""
