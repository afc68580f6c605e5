<?php

namespace App\Resources;

use Illuminate\Support\Str;

/** One entry of the admin navigation, as in an admin panel: a label and a badge that counts. */
abstract class Resource
{
    /** The model's class. */
    public static string $model;

    public static function label(): string
    {
        return Str::plural(class_basename(static::$model));
    }

    public static function navigationBadge(): string
    {
        return (string) static::$model::where('created_at', '>=', now()->subDays(7))->count();
    }

    /** @return list<class-string<Resource>> */
    public static function all(): array
    {
        $files = array_filter(glob(app_path('Resources/*Resource.php')), fn ($file) => basename($file) !== 'Resource.php');

        return array_values(array_map(fn ($file) => __NAMESPACE__.'\\'.basename($file, '.php'), $files));
    }
}
