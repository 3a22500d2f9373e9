"""Every command of the root: its name, where it is, and its line in the help."""

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """One command or group; `target` is a module of memoturn.cli that has it as `app`, or `module:attribute`."""

    name: str
    target: str
    help: str


COMMANDS: Final = (
    Entry("init", "init", "Make sure of a node, create a database, write the config file."),
    Entry("memory", "memory", "Ingest, recall and look after memories."),
    Entry("db", "database", "Create, list and delete databases."),
    Entry("branch", "branch", "Fork, checkpoint and rewind a database."),
    Entry("kv", "kv", "Put, get, delete and list key-values."),
    Entry("erase", "erase", "Erase from history, and check receipts."),
    Entry("docs", "docs", "Insert, find, update and delete JSON documents."),
    Entry("vectors", "vectors", "Store and search vectors."),
    Entry("turns", "turns", "Append, read, search and delete turns of sessions."),
    Entry("timelines", "timelines", "Append and query rows by key and time."),
    Entry("ask", "asking", "Answer a question from memories."),
    Entry("changes", "changes", "Show what commits changed, once or as it happens."),
    Entry("token", "token", "Mint, list and revoke tokens."),
    Entry("key", "token:keys_app", "List and rotate the keys that sign tokens."),
    Entry("policy", "governing:policy_app", "Get, set and clear policies."),
    Entry("quota", "governing:quota_app", "Get and set quotas."),
    Entry("usage", "governing:usage_app", "Show what was used, by day."),
    Entry("tenant", "governing:tenant_app", "Create, list and delete tenants."),
    Entry("namespaces", "governing:namespaces_app", "List the namespaces that have profiles."),
    Entry("settings", "governing:settings_app", "Get and set what a database's writes wait for."),
    Entry("audit", "audit", "Read the audit stream, and prove it."),
    Entry("sql", "sql", "Run SQL statements as one transaction: all of them, or none."),
    Entry("shell", "shell", "Work on a database entry by entry: SQL, and meta commands."),
    Entry("sync", "sql:sync_app", "Ship until everything, or everything up to a txid, is in object storage."),
    Entry("export", "transfer:export_app", "Save a state as one plain SQLite file."),
    Entry(
        "import",
        "transfer:import_app",
        "Make a new database of a SQLite file, or a new branch of one that exists.",
    ),
    Entry("verify", "verify", "Prove everything that object storage has of a database."),
    Entry("cluster", "cluster", "Show the nodes of a cluster, or who owns what."),
    Entry(
        "placement",
        "cluster:placement_app",
        "Show which node owns a database's branch, and how far it is there.",
    ),
    Entry("backup", "backup", "Save every branch of every profile of a namespace."),
    Entry("restore-backup", "backup:restore_app", "Bring back a backup."),
    Entry("doctor", "doctor", "Check server, credentials and settings, and say how to mend what is wrong."),
    Entry("mcp", "mcp", "Serve memory to MCP clients, and register the server with them."),
    Entry("completions", "completions", "Print the completion script of a shell."),
    Entry("version", "version", "Print the version of this command."),
)
