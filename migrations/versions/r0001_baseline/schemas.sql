CREATE SCHEMA spanfold;
COMMENT ON SCHEMA spanfold IS
    'spanfold: what you can query. Views and functions only; the role spanfold_reader may read them all.';

CREATE SCHEMA spanfold_core;
COMMENT ON SCHEMA spanfold_core IS
    'spanfold: journals, checkpoints, verdicts and snapshots. Only the workers write here.';
