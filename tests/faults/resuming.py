"""`python -m tests.faults.resuming`: `spanfold resume fickle`, in a process that can be killed."""

from spanfold.language.progress import NO_PROGRESS
from spanfold.language.settings import settings
from spanfold.operations.installation import Installation
from spanfold.stream_processors.rebuild.rebuild_context import rebuild_context
from spanfold.stream_processors.rebuild.resume import resume
from tests.faults.fickle import Fickle

if __name__ == "__main__":
    installation = Installation(settings())
    topics = installation.prepare(lambda _: None)
    with rebuild_context(installation.settings, installation.dsn, topics, Fickle(), NO_PROGRESS) as context:
        print(resume(context, 0))
