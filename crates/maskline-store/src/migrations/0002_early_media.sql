-- What a caller hears before the answer: 'ringback' or 'passThrough'.
ALTER TABLE numbers ADD COLUMN early_media TEXT NOT NULL DEFAULT 'ringback';
