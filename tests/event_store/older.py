"""`python -m tests.event_store.older`: the projector of a version that does not know ServiceHealthChanged yet."""

from spanfold.bootstrap import run_projector
from spanfold.language.settings import settings
from spanfold.schemas.catalogue import Catalogue, RegisteredSchema


def main() -> None:
    by_id = Catalogue.by_id

    def forgetful(self: Catalogue, schema_id: int) -> RegisteredSchema | None:
        entry = by_id(self, schema_id)
        return None if entry is None or entry.event_type == "ServiceHealthChanged" else entry

    Catalogue.by_id = forgetful  # type: ignore[method-assign]
    run_projector(settings())


if __name__ == "__main__":
    main()
