<?php

namespace App\Resources;

use App\Models\SystemSetting;

class SystemSettingResource extends Resource
{
    public static string $model = SystemSetting::class;
}
