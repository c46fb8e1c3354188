"""Charts as data: a validated specification that the page draws and files are exported from."""
