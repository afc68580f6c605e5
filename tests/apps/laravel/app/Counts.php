<?php

namespace App;

use Illuminate\Database\Events\QueryExecuted;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Event;

/** What the application itself counts in a request with the header `X-Count`: the truth that memprof is held against. */
class Counts
{
    private static array $counts = ['queries' => 0, 'models' => [], 'scopes' => []];

    public static function begin(): void
    {
        DB::listen(function (QueryExecuted $query): void {
            self::$counts['queries']++;
        });
        foreach (['retrieved', 'created', 'updated'] as $event) {
            Event::listen("eloquent.$event: *", function (string $name, array $models) use ($event): void {
                self::add('models', get_class($models[0])."::$event");
            });
        }
    }

    public static function scope(string $model, string $scope): void
    {
        self::add('scopes', "$model::$scope");
    }

    public static function toJson(): string
    {
        return json_encode(self::$counts, JSON_FORCE_OBJECT);
    }

    private static function add(string $kind, string $name): void
    {
        self::$counts[$kind][$name] = (self::$counts[$kind][$name] ?? 0) + 1;
    }
}
