"""`spanfold migrate`: topics and tables as this version needs them."""

from spanfold.cli.options import AsJson, Home, installation
from spanfold.cli.output import notice, print_result
from spanfold.operations import migrating


def migrate(home: Home = None, as_json: AsJson = False) -> None:
    """Create or check the topics, and upgrade the database.

    Prints what it did; running it again changes nothing. Existing topics are checked but never altered. A projection that
    is new, or that this version folds differently, is left as it is and named; rebuild it.

    Example: SPANFOLD_KAFKA_BOOTSTRAP=… SPANFOLD_POSTGRES_DSN=… spanfold migrate
    """
    report = migrating.migrate(installation(home))
    if as_json:
        print_result(report)
    elif report.done:
        print("\n".join(report.done))
    elif not report.left:
        print(f"nothing to do: {', '.join(report.checked)} and the database are up to date")
    for line in report.left:
        notice(line)
